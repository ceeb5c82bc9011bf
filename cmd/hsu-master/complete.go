package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/top"
	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/internal/nearest"
	"github.com/core-tools/hsu-master/store"
)

// completeCommandName is the hidden command that the scripts of shells call at each completion.
const completeCommandName = "__complete"

// namesWithin bounds how long a completion waits for the names of workers, units and services.
const namesWithin = 300 * time.Millisecond

// completionScripts are the scripts of the shells.
//
//go:embed completion
var completionScripts embed.FS

var shells = []string{"bash", "zsh", "fish"}

func completionCommand() *cli.Command {
	cmd := leafOf("completion", "print the completion of a shell", strings.Join(shells, "|"), true,
		func(c *cli.Context, shell string) error {
			if !slices.Contains(shells, shell) {
				return exit.Usagef("shell %q: must be bash, zsh or fish%s", shell, nearest.DidYouMean(shell, shells))
			}
			script, err := completionScripts.ReadFile("completion/" + shell)
			if err != nil {
				return fmt.Errorf("read the script: %w", err)
			}
			_, err = c.App.Writer.Write(script)
			return err
		})
	cmd.Description = `It completes commands, flags, and the names of workers, units and services:
those of the running master, or else the recorded ones. To enable it in a shell:

  bash  source <(hsu-master completion bash)
  zsh   source <(hsu-master completion zsh), after compinit
  fish  hsu-master completion fish | source`
	return cmd
}

// completeCommand prints what can take the place of the last argument, which may be empty: one candidate a line, with
// its description after a tab. Without candidates, the shell completes file names.
func completeCommand() *cli.Command {
	return &cli.Command{
		Name: completeCommandName, Hidden: true, HideHelpCommand: true, ArgsUsage: "WORD...",
		Action: func(c *cli.Context) error {
			words := c.Args().Slice()
			if len(words) == 0 {
				words = []string{""}
			}
			for _, found := range complete(c.Context, c.App, words[:len(words)-1], words[len(words)-1]) {
				fmt.Fprintln(c.App.Writer, found)
			}
			return nil
		},
	}
}

// candidate is a word that can follow.
type candidate struct{ word, text string }

func (c candidate) String() string {
	if c.text == "" {
		return render.Printable(c.word)
	}
	return render.Printable(c.word) + "\t" + render.Printable(c.text)
}

// complete returns the candidates for a word that begins with current and follows the others.
func complete(ctx context.Context, app *cli.App, before []string, current string) (found []candidate) {
	l := line{app: app, name: app.Name, commands: app.Commands, flags: allFlags(app.Commands)}
	for rest := before; len(rest) > 0; {
		if rest[0] == "--" {
			return nil
		}
		var err error
		if rest, err = l.take(rest); err != nil {
			return nil
		}
	}
	for _, c := range l.candidates(func() names { return namesOf(ctx, l.set) }, current) {
		if strings.HasPrefix(c.word, current) {
			found = append(found, c)
		}
	}
	return found
}

// candidates returns the words that can follow. names is called only if they are needed.
func (l *line) candidates(known func() names, current string) (found []candidate) {
	if n := len(l.set); n > 0 && !l.set[n-1].hasValue {
		return known().ofFlag(l.set[n-1].name, "")
	}
	if strings.HasPrefix(current, "-") {
		if name, _, isValue := strings.Cut(strings.TrimLeft(current, "-"), "="); isValue {
			return known().ofFlag(name, "--"+name+"=")
		}
		return l.flagCandidates()
	}
	if l.leaf == nil {
		for _, c := range l.commands {
			if !c.Hidden {
				found = append(found, candidate{c.Name, c.Usage})
			}
		}
		return found
	}
	return known().ofArgument(l.leaf, len(l.positional))
}

func (l *line) flagCandidates() (found []candidate) {
	for _, f := range l.flags {
		documented, ok := f.(cli.DocGenerationFlag)
		if !ok || slices.ContainsFunc(found, func(c candidate) bool { return c.word == "--"+f.Names()[0] }) {
			continue
		}
		found = append(found, candidate{"--" + f.Names()[0], strings.ReplaceAll(documented.GetUsage(), "`", "")})
	}
	return append(found, candidate{"--help", "print the help of the command"})
}

// names are the names that users have given.
type names struct{ workers, units, services []string }

// ofFlag returns the candidates for the value of a flag.
func (n names) ofFlag(flag, prefix string) []candidate {
	switch flag {
	case "worker":
		return candidates(n.workers, "worker", prefix, "")
	case "unit":
		return candidates(n.units, "unit", prefix, "")
	case "type":
		var found []candidate
		for _, t := range eventtype.All {
			found = append(found, candidate{prefix + t.Name, strings.ReplaceAll(t.Doc, "`", "")})
		}
		return found
	case sortFlag:
		return candidates(top.Orders, "", prefix, "")
	}
	return nil
}

// ofArgument returns the candidates for an argument of a command, which its ArgsUsage describes: alternatives are
// separated by "|", and words in lower case stand for themselves.
func (n names) ofArgument(leaf *cli.Command, at int) (found []candidate) {
	fields := strings.Fields(leaf.ArgsUsage)
	if len(fields) == 0 {
		return nil
	}
	if at >= len(fields) {
		if at = len(fields) - 1; !strings.HasSuffix(fields[at], "...") && !strings.HasSuffix(fields[at], "...]") {
			return nil
		}
	}
	for kind := range strings.SplitSeq(strings.Trim(fields[at], "[]."), "|") {
		switch kind {
		case "ID", "WORKER":
			found = append(found, candidates(n.workers, "worker", "", "")...)
		case "UNIT":
			found = append(found, candidates(n.units, "unit", "", "")...)
		case "UNIT=N":
			found = append(found, candidates(n.units, "unit", "", "=")...)
		case "NAME":
			found = append(found, candidates(n.services, "service", "", "")...)
		default:
			if kind == strings.ToLower(kind) {
				found = append(found, candidate{word: kind})
			}
		}
	}
	return found
}

func candidates(words []string, text, prefix, suffix string) (found []candidate) {
	for _, word := range words {
		found = append(found, candidate{prefix + word + suffix, text})
	}
	return found
}

// namesOf returns the names of the running master, or else the recorded ones, of the folders that the flags name. It
// returns none if that takes too long, or fails.
func namesOf(ctx context.Context, set []setFlag) (n names) {
	value := func(flag string) string {
		text := ""
		if env, found := os.LookupEnv(variablePrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))); found {
			text = env
		}
		for _, s := range set {
			if s.name == flag {
				text = s.value
			}
		}
		return text
	}
	f, err := chooseFolders(value(stateDirFlag), value(runtimeDirFlag), os.Geteuid(), os.Getenv)
	if err != nil {
		return n
	}
	state, err := briefState(ctx, f)
	if err != nil {
		return n
	}
	for _, u := range state.GetUnits() {
		if !u.GetRetired() {
			n.units = append(n.units, u.GetName())
		}
	}
	for _, w := range state.GetWorkers() {
		n.workers = append(n.workers, w.GetId())
		if unit := w.GetUnit(); !slices.Contains(n.units, unit) { // of a state of an older release
			n.units = append(n.units, unit)
		}
	}
	for _, s := range state.GetServices() {
		n.services = append(n.services, s.GetName())
	}
	return n
}

// briefState is [readState] within namesWithin.
func briefState(ctx context.Context, f folders) (*adminpb.State, error) {
	ctx, cancel := context.WithTimeout(ctx, namesWithin)
	defer cancel()
	state, err := liveState(ctx, f)
	if !errors.Is(err, exit.ErrNoMaster) {
		return state, err
	}
	snap, err := store.ReadSnapshot(f.state)
	if err != nil {
		return nil, err
	}
	return api.OfflineState(snap, f.state), nil
}
