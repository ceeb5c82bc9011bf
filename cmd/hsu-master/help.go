package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
)

func init() { cli.HelpPrinter = printHelp }

const (
	helpWidth  = 80
	helpIndent = 26 // of the description of a flag
)

// printHelp prints the help of the program or of a command: its purpose, its subcommands, and its flags by topic.
func printHelp(w io.Writer, _ string, of any) {
	switch of := of.(type) {
	case *cli.App:
		fmt.Fprintf(w, "Usage: %s COMMAND [flags]\n\n%s\n", of.Name, of.Usage)
		printDescription(w, of.Description)
		printCommands(w, of.Commands)
	case *cli.Command:
		fmt.Fprintf(w, "Usage: %s\n\n%s\n", synopsis(of), of.Usage)
		printDescription(w, of.Description)
		printCommands(w, of.Subcommands)
		printFlags(w, of.Flags)
	}
}

func synopsis(c *cli.Command) string {
	switch {
	case len(c.Subcommands) > 0:
		return c.HelpName + " COMMAND [flags]"
	case c.ArgsUsage != "":
		return c.HelpName + " [flags] " + c.ArgsUsage
	}
	return c.HelpName + " [flags]"
}

func printDescription(w io.Writer, text string) {
	if text != "" {
		fmt.Fprintf(w, "\n%s\n", text)
	}
}

func printCommands(w io.Writer, commands []*cli.Command) {
	if len(commands) == 0 {
		return
	}
	commands = slices.DeleteFunc(slices.Clone(commands), func(c *cli.Command) bool { return c.Hidden })
	longest := 0
	for _, c := range commands {
		longest = max(longest, len(c.Name))
	}
	fmt.Fprint(w, "\nCommands:\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-*s  %s\n", longest, c.Name, c.Usage)
	}
}

// printFlags prints the flags by category, in the order in which they are defined.
func printFlags(w io.Writer, flags []cli.Flag) {
	var categories []string
	of := map[string][]string{}
	for _, f := range flags {
		f, documented := f.(interface {
			cli.DocGenerationFlag
			cli.CategorizableFlag
		})
		if !documented || slices.Contains(cli.HelpFlag.Names(), f.Names()[0]) {
			continue
		}
		category := f.GetCategory()
		if !slices.Contains(categories, category) {
			categories = append(categories, category)
		}
		of[category] = append(of[category], helpOfFlag(f))
	}
	for _, category := range categories {
		title := category
		if title == "" {
			title = "Flags:"
		}
		fmt.Fprintf(w, "\n%s\n%s", title, strings.Join(of[category], ""))
	}
}

// helpOfFlag returns the lines of a flag. The placeholder of its value is in back quotes in the usage.
func helpOfFlag(f cli.DocGenerationFlag) string {
	head := "  --" + f.Names()[0]
	if names := f.Names(); len(names) > 1 {
		head = "  -" + names[1] + ", --" + names[0]
	}
	before, rest, quoted := strings.Cut(f.GetUsage(), "`")
	placeholder, after, _ := strings.Cut(rest, "`")
	if quoted {
		head += " " + placeholder
	}
	parts := []string{strings.TrimSpace(before + after)}
	if value := defaultOf(f); value != "" {
		parts = append(parts, "(default"+render.Unbroken+value+")")
	}
	for _, name := range f.GetEnvVars() {
		parts = append(parts, "[$"+name+"]")
	}
	lines := render.Wrap(strings.Join(parts, " "), helpWidth-helpIndent)
	if len(head)+2 > helpIndent {
		lines = append([]string{""}, lines...)
	}
	var b strings.Builder
	for i, line := range lines {
		if i > 0 {
			head = ""
		}
		b.WriteString(strings.TrimRight(fmt.Sprintf("%-*s%s", helpIndent, head, line), " ") + "\n")
	}
	return b.String()
}

// defaultOf returns the default of a flag, or "" if it has none that its usage does not describe.
func defaultOf(f cli.DocGenerationFlag) string {
	if _, isBool := f.(*cli.BoolFlag); isBool || !f.TakesValue() {
		return ""
	}
	value := f.GetValue()
	if zero := value == "0" || value == "0s"; zero {
		return ""
	}
	return strings.Replace(value, "m0s", "m", 1)
}
