#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define ARRAY_LEN(x) (sizeof(x) / sizeof((x)[0]))

static const int table[] = { 3, 1, 4, 1, 5 };

int largest(void)
{
    int best = table[0];
    for (size_t i = 1; i < ARRAY_LEN(table); i++)
        best = MAX(best, table[i]);
    return best;
}
