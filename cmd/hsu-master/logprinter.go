package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/terminal"
)

// logLineJSON is one line of the output of "worker logs --json". Scripts depend on it.
type logLineJSON struct {
	Worker string     `json:"worker"`
	Time   *time.Time `json:"time"`           // when the master saw it; null for a line that was there before
	Line   string     `json:"line"`           // without its newline
	More   bool       `json:"more,omitempty"` // the line goes on in the next one of the worker
	Notice string     `json:"notice,omitempty"`
}

// logPrinter prints the output of workers.
type logPrinter struct {
	w, errs  io.Writer
	json     bool
	alone    string // worker whose lines have no prefix; "" if all have one
	color    bool
	terminal bool // control characters are escaped

	prefixes map[string]string
	longest  int    // id
	open     string // worker whose last line has no newline yet
}

func newLogPrinter(c *cli.Context, req *adminpb.LogsRequest) *logPrinter {
	p := &logPrinter{w: c.App.Writer, errs: c.App.ErrWriter, json: c.Bool(jsonFlag), prefixes: map[string]string{}}
	p.terminal = terminal.Is(p.w)
	p.color = p.terminal && os.Getenv("NO_COLOR") == ""
	if names := req.GetNames(); len(names) == 1 {
		p.alone = names[0]
	}
	return p
}

// show prints output, with one write if there are no notices.
func (p *logPrinter) show(resp *adminpb.LogsResponse) error {
	var b bytes.Buffer
	for _, text := range resp.GetTexts() {
		switch notice := text.GetNotice(); {
		case p.json:
			if err := appendJSON(&b, text); err != nil {
				return err
			}
		case notice == "":
			p.append(&b, text)
		default:
			if p.open != "" {
				b.WriteByte('\n')
				p.open = ""
			}
			if _, err := p.w.Write(b.Bytes()); err != nil {
				return err
			}
			b.Reset()
			fmt.Fprintf(p.errs, "hsu-master: %s: %s\n", render.Printable(text.GetWorker()), render.Printable(notice))
		}
	}
	if b.Len() == 0 {
		return nil
	}
	_, err := p.w.Write(b.Bytes())
	return err
}

// append adds the lines of a worker to a text.
func (p *logPrinter) append(b *bytes.Buffer, resp *adminpb.LogText) {
	for line := range bytes.Lines(resp.GetText()) {
		if p.open != resp.GetWorker() {
			if p.open != "" {
				b.WriteByte('\n')
			}
			b.WriteString(p.prefix(resp.GetWorker()))
		}
		text, whole := bytes.CutSuffix(line, []byte("\n"))
		if p.terminal {
			b.WriteString(visible(string(text)))
		} else {
			b.Write(text)
		}
		p.open = resp.GetWorker()
		if whole {
			b.WriteByte('\n')
			p.open = ""
		}
	}
}

// appendJSON adds an object for each line.
func appendJSON(b *bytes.Buffer, resp *adminpb.LogText) error {
	line := logLineJSON{Worker: resp.GetWorker(), Notice: resp.GetNotice()}
	if line.Notice != "" {
		return render.JSONLine(b, line)
	}
	if at := resp.GetTime(); at != nil {
		line.Time = new(at.AsTime())
	}
	for text := range bytes.Lines(resp.GetText()) {
		content, whole := bytes.CutSuffix(text, []byte("\n"))
		line.Line, line.More = string(content), !whole
		if err := render.JSONLine(b, line); err != nil {
			return err
		}
	}
	return nil
}

// colors of the ids of workers: cyan, yellow, green, magenta, blue, and the bright ones.
var colors = []string{"36", "33", "32", "35", "34", "96", "93", "92", "95", "94"}

// prefix returns the beginning of each line of a worker.
func (p *logPrinter) prefix(worker string) string {
	if worker == p.alone {
		return ""
	}
	text, known := p.prefixes[worker]
	if known {
		return text
	}
	id := render.Printable(worker)
	if n := utf8.RuneCountInString(id); n > p.longest {
		p.longest = n
		clear(p.prefixes) // the others get longer
	}
	text = fmt.Sprintf("%-*s |", p.longest, id)
	if p.color {
		text = fmt.Sprintf("\x1b[%sm%s\x1b[0m", p.colorOf(worker), text)
	}
	text += " "
	p.prefixes[worker] = text
	return text
}

// colorOf returns the color of a worker, which is the same in each run.
func (p *logPrinter) colorOf(worker string) string {
	sum := 0
	for _, b := range []byte(worker) {
		sum += int(b)
	}
	return colors[sum%len(colors)]
}

// visible returns a line of a worker for a terminal: tabs stay, other control characters are escaped.
func visible(text string) string {
	parts := strings.Split(text, "\t")
	for i, part := range parts {
		parts[i] = render.Printable(part)
	}
	return strings.Join(parts, "\t")
}
