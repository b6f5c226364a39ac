enum State {
  Idle = "idle",
  Running = "running",
  Done = "done",
}

const transitions: Record<State, State[]> = {
  [State.Idle]: [State.Running],
  [State.Running]: [State.Done, State.Idle],
  [State.Done]: [],
};

export const canMove = (from: State, to: State): boolean => transitions[from].includes(to);
