//go:build unix

package boltfile

// mapSize is the address space that is mapped for the file from the start. While a reader (such as a backup) is
// active, the file can grow up to this size without waiting for the reader.
const mapSize = 64 << 20
