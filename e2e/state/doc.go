// Package state tests the state directory: backups and restoring, damaged files, what "state plan" tells about them,
// full, failing and read-only disks, limits of the kernel, and files that are not what the master expects. In every
// case no acknowledged request is lost and the workers live on.
package state
