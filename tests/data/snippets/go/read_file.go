f, err := os.Open(name)
if err != nil {
	return nil, fmt.Errorf("open %s: %w", name, err)
}
defer f.Close()
scanner := bufio.NewScanner(f)
for scanner.Scan() {
	lines = append(lines, scanner.Text())
}
