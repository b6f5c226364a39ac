squares = [x ** 2 for x in range(10) if x % 2 == 0]
names = {user["id"]: user["name"] for user in users}
print(squares, names)
