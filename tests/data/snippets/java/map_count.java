Map<String, Integer> counts = new HashMap<>();
for (String word : text.split("\\s+")) {
    counts.merge(word, 1, Integer::sum);
}
counts.forEach((k, v) -> System.out.println(k + ": " + v));
