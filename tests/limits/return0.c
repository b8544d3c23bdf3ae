/* The smallest program: what a preloaded allocator costs when nobody uses it. */
int main(void)
{
    return 0;
}
