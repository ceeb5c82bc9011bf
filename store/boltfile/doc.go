// Package boltfile opens and reads bbolt files that may be damaged.
//
// bbolt trusts the pages that it maps: a page number out of range causes a fault, a cycle a stack overflow and a wrong
// count an allocation without bound. The last two end the process and cannot be recovered from. So an [Image] walks a
// file page by page with nothing but bounds-checked reads, and only a file that has passed [Image.Check] may be opened
// as a [File], which uses bbolt. The accesses of a File run under debug.SetPanicOnFault with recover.
//
// The package does not interpret the content of buckets.
package boltfile
