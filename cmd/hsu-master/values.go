package main

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
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
			return exit.Usagef("flag needs an argument: --%s: see %q", set.name, l.name+" --help")
		}
		if wanted := wantedValue(flags[at], set.value); wanted != "" {
			return exit.Usagef("--%s %q: must be %s: see %q", set.name, set.value, wanted, l.name+" --help")
		}
	}
	return nil
}

// checkNames returns an error for an argument that no message to a master can have. Paths of files can be any bytes.
func (l *line) checkNames() error {
	if l.leaf == nil || l.leaf.ArgsUsage == fileArg || l.leaf.ArgsUsage == "["+fileArg+"]" {
		return nil
	}
	for _, arg := range l.positional {
		if !utf8.ValidString(arg) {
			return exit.Usagef("%q is not text in UTF-8: see %q", arg, l.name+" --help")
		}
	}
	return nil
}

// fileArg is the placeholder of an argument that is the path of a file.
const fileArg = "FILE"

// textValues are the placeholders of flags whose values are sent to a master as text.
var textValues = []string{"NAME", "REGEXP", "TEXT", "ID"}

var errNotText = errors.New("not text in UTF-8")

// checkText returns an error if the value of the flag with this usage is to be text and is none.
func checkText(usage, value string) error {
	_, rest, _ := strings.Cut(usage, "`")
	placeholder, _, _ := strings.Cut(rest, "`")
	if slices.Contains(textValues, placeholder) && !utf8.ValidString(value) {
		return errNotText
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
			return exit.Usagef("--%s %q (from %s): must be %s: see %q", f.Names()[0], value, name, wanted,
				l.name+" --help")
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
	case *cli.StringFlag:
		err, wanted = checkText(f.Usage, value), "text in UTF-8"
	case *cli.StringSliceFlag:
		err, wanted = checkText(f.Usage, value), "text in UTF-8"
	}
	if err == nil {
		return ""
	}
	return wanted
}
