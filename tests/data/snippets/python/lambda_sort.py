people.sort(key=lambda p: (p["last"], p["first"]))
for i, p in enumerate(people):
    print(f"{i}: {p['first']} {p['last']}")
