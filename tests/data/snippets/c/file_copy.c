FILE *in = fopen(argv[1], "rb");
if (!in) {
    perror(argv[1]);
    exit(EXIT_FAILURE);
}
char buf[4096];
size_t n;
while ((n = fread(buf, 1, sizeof buf, in)) > 0)
    fwrite(buf, 1, n, stdout);
fclose(in);
