package config

import _ "embed"

// Example is a file with comments, for a start.
//
//go:embed example.yaml
var Example string
