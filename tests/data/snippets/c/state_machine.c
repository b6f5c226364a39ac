typedef enum { IDLE, RUNNING, DONE } state_t;

state_t step(state_t s, int event)
{
    switch (s) {
    case IDLE:
        return event ? RUNNING : IDLE;
    case RUNNING:
        return event ? DONE : RUNNING;
    default:
        return s;
    }
}
