// Package importer turns the file of another process manager into a configuration file of this one.
//
// A file passes through these steps, each in a file of its own:
//
//	supervisord.go, processcompose.go, procfile.go, procman.go   read a format, and make a document
//	document.go   the document: keys and values of our file, and comments for keys without a counterpart
//	print.go      the only printer of documents
//	importer.go   has package config read the result, and makes comments of the keys that it refuses
//
// Files whose names begin with that of a format belong to it. ini.go and shlex.go read supervisord's dialects, yaml.go
// walks maps of other YAML files, and text.go escapes their texts.
//
// No key is dropped silently: one that an importer does not know becomes a comment in its place. The input can be
// hostile: it is bounded, and its texts are escaped, so that our file has the same texts.
package importer
