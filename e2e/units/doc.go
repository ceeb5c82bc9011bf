// Package units tests masters that run a configuration file: six programs of different kinds from the example in
// examples/six, each key of the file, imported files, and faults of units that must not reach the others.
package units
