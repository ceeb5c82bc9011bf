package main

import (
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"
)

// setFlag is a flag of a command line, with its value if it has one.
type setFlag struct {
	name, value string
	hasValue    bool
}

// checkFlags returns an error if the command has no such flag, or if a flag has no value or one of another kind. The
// parser would refuse them too, but with errors that have no type.
func (l *line) checkFlags() error {
	var flags []cli.Flag // a command that has subcommands has no flags
	if l.leaf != nil {
		flags = l.leaf.Flags
	}
	for _, set := range l.set {
		at := slices.IndexFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), set.name) })
		if at < 0 {
			return l.unknownFlag("--"+set.name, flags)
		}
		if !set.hasValue {
			return usagef("flag needs an argument: --%s: see %q", set.name, l.name+" --help")
		}
		if wanted := wantedValue(flags[at], set.value); wanted != "" {
			return usagef("--%s %q: must be %s: see %q", set.name, set.value, wanted, l.name+" --help")
		}
	}
	return nil
}

// checkVariables returns an error if an environment variable sets a flag of the command to a value of another kind.
func (l *line) checkVariables() error {
	if l.leaf == nil {
		return nil
	}
	for _, f := range l.leaf.Flags {
		name, value, found := variableOf(f)
		if !found || value == "" {
			continue
		}
		if wanted := wantedValue(f, value); wanted != "" {
			return usagef("--%s %q (from %s): must be %s: see %q", f.Names()[0], value, name, wanted, l.name+" --help")
		}
	}
	return nil
}

// variableOf returns the environment variable from which the parser takes the value of the flag.
func variableOf(f cli.Flag) (name, value string, found bool) {
	documented, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return "", "", false
	}
	for _, name := range documented.GetEnvVars() {
		if value, found := os.LookupEnv(name); found {
			return name, value, true
		}
	}
	return "", "", false
}

// wantedValue describes the values that the flag accepts, or returns "" if it accepts the given one.
func wantedValue(f cli.Flag, value string) string {
	var err error
	var wanted string
	switch f := f.(type) {
	case *cli.BoolFlag:
		_, err = strconv.ParseBool(value)
		wanted = "true or false"
	case *cli.DurationFlag:
		_, err = time.ParseDuration(value)
		wanted = "a duration with its unit such as 90s or 10m"
	case *cli.IntFlag:
		_, err = strconv.ParseInt(value, f.Base, strconv.IntSize)
		wanted = "a whole number"
	case *cli.Uint64Flag:
		_, err = strconv.ParseUint(value, f.Base, 64)
		wanted = "a whole number from 0"
	}
	if err == nil {
		return ""
	}
	return wanted
}
