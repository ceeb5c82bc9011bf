// Package config reads the configuration file of a master.
//
// A file passes through these steps, each in a file of its own:
//
//	scan.go        bounds the input of the parser: size, nesting, one document
//	tree.go        turns the parser's tree into nodes; aliases and merge keys are resolved
//	load.go        reads the file and those that it includes
//	defaults.go    merges "defaults:" into each unit
//	bind.go        reads nodes into Go values, key by key
//	check.go       finds faults between keys and between units
//
// The keys stand beside the Go types that they fill: file.go has those of the file, unit.go and health.go those of a
// unit. A list of keys is the only place that describes them. Reading, suggestions, "config show", the JSON Schema
// and docs/CONFIGURATION.md all use these lists.
//
// Every fault is reported with its place, all in one error. Only a syntax error is reported alone, because nothing
// is known of the text after it. Values of environment variables never appear in a fault.
package config
