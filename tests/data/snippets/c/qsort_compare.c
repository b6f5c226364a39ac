static int by_age(const void *a, const void *b)
{
    const struct person *pa = a, *pb = b;
    return (pa->age > pb->age) - (pa->age < pb->age);
}

qsort(people, n, sizeof people[0], by_age);
