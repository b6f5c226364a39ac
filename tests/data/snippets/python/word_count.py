from collections import Counter

with open("words.txt") as f:
    counts = Counter(f.read().split())

for word, n in counts.most_common(10):
    print(word, n)
