package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
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

// versionJSON is the output of "version --json". Scripts depend on it.
type versionJSON struct {
	Version string `json:"version"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	Go      string `json:"go"` // release that it was built with
}

func versionCommand() *cli.Command {
	return leaf("version", "print the version", func(c *cli.Context) error {
		if c.Bool(jsonFlag) {
			return render.JSON(c.App.Writer, versionJSON{version(), runtime.GOOS, runtime.GOARCH, runtime.Version()})
		}
		_, err := fmt.Fprintf(c.App.Writer, "hsu-master %s %s/%s %s\n",
			version(), runtime.GOOS, runtime.GOARCH, runtime.Version())
		return err
	}, jsonOutput())
}
