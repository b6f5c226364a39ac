const (
	StatusIdle = iota
	StatusRunning
	StatusDone
)

var names = map[int]string{
	StatusIdle:    "idle",
	StatusRunning: "running",
}
