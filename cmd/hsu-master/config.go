package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	configfile "github.com/core-tools/hsu-master/config"
	"github.com/core-tools/hsu-master/config/importer"
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/master"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

func configCommand() *cli.Command {
	initial := leafOf("init", "write a commented example of a configuration file", "FILE", true, initConfig)
	initial.Description = "The file must not exist."
	show := leafOf("show", "print the values in effect of a configuration file", "FILE", true, showConfig, jsonOutput())
	show.Description = `The values are printed as the file has them. Variables are not replaced, because
their values may be secret.`
	imported := leafOf("import", "print the file of another process manager as a configuration file", "FILE", true,
		importConfig, &cli.StringFlag{
			Name:  fromFlag,
			Usage: "`FORMAT` the format of FILE: " + strings.Join(importer.Formats(), ", "),
		})
	imported.Description = `Save the result in the folder of FILE, and run "config check" on it. Its
comments name all that has no counterpart.`
	return group("config", "check, explain, write and import a configuration file",
		leafOf("check", "find faults in a configuration file", "FILE", true, checkConfig),
		show,
		leaf("schema", "print the JSON Schema of configuration files", printSchema),
		initial, imported)
}

// fromFlag names the format of the file that config import reads.
const fromFlag = "from"

// loadConfig reads a configuration file. An error is one of usage, unless the file cannot be read.
func loadConfig(path string, host configfile.Host) (*configfile.File, error) {
	return explained(path, func() (*configfile.File, error) { return configfile.Load(path, host) })
}

// explained returns the file that read returns, or its faults as an error of usage.
func explained(path string, read func() (*configfile.File, error)) (*configfile.File, error) {
	file, err := read()
	faulty, ok := errors.AsType[*configfile.FaultError](err)
	switch {
	case err == nil:
		return file, nil
	case errors.Is(err, fs.ErrNotExist) && !ok:
		return nil, exit.Hint(exit.Usage(err), `"hsu-master config init %s" writes an example`, render.Printable(path))
	case !ok:
		return nil, exit.Usage(err)
	case len(faulty.Faults) == 1:
		return nil, exit.Usagef("%s has a fault:\n%w", render.Printable(path), err)
	}
	return nil, exit.Usagef("%s has %d faults:\n%w", render.Printable(path), len(faulty.Faults), err)
}

func checkConfig(c *cli.Context, path string) error {
	file, err := explained(path, func() (*configfile.File, error) {
		return configfile.LoadWithText(path, configfile.ThisHost())
	})
	if err != nil {
		return err
	}
	units, err := master.FileUnits(file)
	if err != nil {
		return exit.Usagef("%s: %w", render.Printable(path), err)
	}
	workers := 0
	for _, u := range file.Units {
		workers += u.Replicas
	}
	fmt.Fprintf(c.App.Writer, "%s is valid: %s, %s\n", render.Printable(path),
		render.Count(len(file.Units), "unit"), render.Count(workers, "worker"))
	var faults []configfile.UnitFault
	for u := range unit.All(units) {
		missing := u.CommandErrors()
		if u.Starts() {
			missing = append(u.StartErrors(), missing...)
		}
		for _, reason := range missing {
			faults = append(faults, configfile.UnitFault{Unit: u.Name, Key: reason.Key, Err: reason.Err})
		}
	}
	if found := file.Locate(faults); len(found) > 0 {
		fmt.Fprintln(c.App.Writer, "but on this host, these cannot be used:")
		for _, fault := range found {
			fmt.Fprintln(c.App.Writer, fault)
		}
	}
	return nil
}

// notStartable returns an error with the reasons why workers of units cannot be started on this host.
func notStartable(units []unit.Spec) error {
	var errs []error
	for u := range unit.All(units) {
		if !u.Starts() {
			continue
		}
		for _, reason := range u.StartErrors() {
			errs = append(errs, fmt.Errorf("unit %s: %w", u.Name, reason))
		}
	}
	return errors.Join(errs...)
}

func importConfig(c *cli.Context, path string) error {
	format := c.String(fromFlag)
	if format == "" {
		return exit.Usagef("--%s is missing: give the format of the file, one of %s", fromFlag,
			strings.Join(importer.Formats(), ", "))
	}
	text, err := importer.Import(format, path, configfile.ThisHost())
	faulty, ok := errors.AsType[*configfile.FaultError](err)
	switch {
	case errors.Is(err, importer.ErrFormat):
		return exit.Usagef("--%s: %w", fromFlag, err)
	case ok && len(faulty.Faults) > 1:
		return exit.Usagef("%s has %d faults:\n%w", render.Printable(path), len(faulty.Faults), err)
	case err != nil:
		return exit.Usage(err)
	}
	_, err = c.App.Writer.Write(text)
	return err
}

// settingJSON is a value in effect.
type settingJSON struct {
	Path   []string `json:"path"`
	Value  any      `json:"value"`  // a text, or a list of texts
	Origin string   `json:"origin"` // default, defaults or file
	File   string   `json:"file,omitempty"`
	Line   int      `json:"line,omitempty"`
}

func showConfig(c *cli.Context, path string) error {
	file, err := loadConfig(path, configfile.ThisHost())
	if err != nil {
		return err
	}
	if !c.Bool(jsonFlag) {
		return file.WriteYAML(c.App.Writer)
	}
	settings := file.Settings()
	list := make([]settingJSON, len(settings))
	for i, s := range settings {
		list[i] = settingJSON{Path: s.Path, Value: s.Value, Origin: "file", File: s.File, Line: s.Line}
		switch {
		case s.Default:
			list[i].Origin = "default"
		case s.Inherited:
			list[i].Origin = "defaults"
		}
	}
	return render.JSON(c.App.Writer, list)
}

func printSchema(c *cli.Context) error { return render.JSON(c.App.Writer, configfile.Schema()) }

func initConfig(c *cli.Context, path string) error {
	f, err := safefile.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return exit.Hint(fmt.Errorf("%s exists", render.Printable(path)), "remove it, or name another file")
	}
	if err != nil {
		return fmt.Errorf("write the example: %w", err)
	}
	_, err = f.WriteString(configfile.Example)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write the example: %w", err)
	}
	fmt.Fprintf(c.App.Writer, "wrote %s; next: hsu-master config check %s\n", render.Printable(path),
		render.Printable(path))
	return nil
}
