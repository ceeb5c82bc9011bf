// Package contract holds this module to its contract: the exported API of the published hsu-core, no
// identifier more or less, and that a program written from the HSU guide runs on it. It has tests only.
package contract
