package unit

// Condition is the state of a dependency that a worker waits for before each start.
type Condition string

// The values of Condition.
const (
	// Started means that each worker of the dependency has a living process, or has completed.
	Started Condition = "started"
	// Ready means that each worker of the dependency is ready.
	Ready Condition = "ready"
	// Completed means that each worker of the dependency has ended with a success code and is not restarted.
	Completed Condition = "completed"
)

// Dependency is a unit that the workers of another unit wait for.
type Dependency struct {
	Unit      string
	Condition Condition
}
