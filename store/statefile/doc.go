// Package statefile changes files durably.
//
// A file is replaced as a whole: [Ops.Replace] writes the new content under a temporary name, syncs it, renames it
// and syncs the directory, so that there is never a partial file at the path. Each of these operations is a crash
// point. A damaged file is not overwritten but kept under another name: see [Ops.KeepAside].
//
// The package does not interpret the content of files.
package statefile
