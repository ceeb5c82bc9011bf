// Package crashpoint is the seam through which everything passes that makes state
// durable or changes the world: commits, files that are replaced, processes that
// are started and signalled. Each passes it under the name of a point, so that a
// test can kill the master right before or right after it, or have it fail.
//
// Without the build tag "crashpoints" the seam only calls what it is given.
package crashpoint

// Point names an act. The master can be killed before it and after it:
// "before-fork", "after-fork".
type Point string

// Before is the name of the moment before the act.
func (p Point) Before() string { return "before-" + string(p) }

// After is the name of the moment after the act, if it succeeded.
func (p Point) After() string { return "after-" + string(p) }

// A file that is replaced as a whole passes four points of its own: see [Steps].

// Write is when its temporary file is written.
func (p Point) Write() Point { return p + "-write" }

// Sync is when that is synced.
func (p Point) Sync() Point { return p + "-sync" }

// Rename is when it gets the file's name.
func (p Point) Rename() Point { return p + "-rename" }

// SyncFolder is when the name is made durable.
func (p Point) SyncFolder() Point { return p + "-sync-folder" }

// Steps are the points that the replacement of a file passes, in order.
func (p Point) Steps() []Point { return []Point{p.Write(), p.Sync(), p.Rename(), p.SyncFolder()} }
