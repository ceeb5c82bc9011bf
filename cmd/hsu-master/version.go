package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// release is set by the Makefile with -ldflags.
var release string

func version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}

func versionCommand() *cli.Command {
	return leaf("version", "print the version", func(c *cli.Context) error {
		_, err := fmt.Fprintf(c.App.Writer, "hsu-master %s %s/%s %s\n",
			version(), runtime.GOOS, runtime.GOARCH, runtime.Version())
		return err
	})
}
