// Package crashpoint wraps every operation that makes state durable or has an effect outside of the process:
// commits, replaced files, started and signalled processes. Each operation has a name, its point, so that a test
// can kill the master right before or right after the operation, or make it fail.
//
// Without the build tag "crashpoints" the wrappers only call the operation.
package crashpoint

// Point is the name of an operation. The master can be killed before and after it: "before-fork", "after-fork".
type Point string

// Before returns the name of the moment before the operation.
func (p Point) Before() string { return "before-" + string(p) }

// After returns the name of the moment after the operation, if it succeeded.
func (p Point) After() string { return "after-" + string(p) }

// The replacement of a whole file has four points of its own: see [Steps].

// Write returns the point at which the temporary file is written.
func (p Point) Write() Point { return p + "-write" }

// Sync returns the point at which the temporary file is synced.
func (p Point) Sync() Point { return p + "-sync" }

// Rename returns the point at which the temporary file is renamed to its final name.
func (p Point) Rename() Point { return p + "-rename" }

// SyncFolder returns the point at which the rename is made durable.
func (p Point) SyncFolder() Point { return p + "-sync-folder" }

// Steps returns the points of the replacement of a file, in order.
func (p Point) Steps() []Point { return []Point{p.Write(), p.Sync(), p.Rename(), p.SyncFolder()} }
