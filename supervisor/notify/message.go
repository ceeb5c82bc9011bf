package notify

import (
	"bytes"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// MaxStatus is the length of a status text in bytes. The rest of a longer one is cut off.
const MaxStatus = 200

// State is what an instance has told up to now.
type State struct {
	Ready    bool // READY=1, and no STOPPING=1 since
	Stopping bool // STOPPING=1, and no READY=1 since
	// Watchdog is the time of the last WATCHDOG=1, zero if there was none. Failed reports that WATCHDOG=trigger has
	// come since.
	Watchdog time.Time
	Failed   bool
	Status   string // of the last STATUS=, without control characters
	Heard    bool   // at least one notification has come
}

// Apply returns the state after a datagram: lines NAME=VALUE. Names that it does not know are ignored, and so are lines
// of another form.
func (s State) Apply(datagram []byte, now time.Time) State {
	s.Heard = true
	for line := range bytes.Lines(datagram) {
		name, value, found := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte("="))
		if !found {
			continue
		}
		switch string(name) {
		case "READY":
			if string(value) == "1" {
				s.Ready, s.Stopping = true, false
			}
		case "STOPPING":
			if string(value) == "1" {
				s.Ready, s.Stopping = false, true
			}
		case "WATCHDOG":
			switch string(value) {
			case "1":
				s.Watchdog, s.Failed = now, false
			case "trigger":
				s.Failed = true
			}
		case "STATUS":
			s.Status = statusText(value)
		}
	}
	return s
}

// statusText returns a text that can be shown: valid, without control characters, and not too long.
func statusText(value []byte) string {
	value = value[:min(len(value), 4*MaxStatus)]
	text := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(value), "\uFFFD"))
	if len(text) <= MaxStatus {
		return text
	}
	end := MaxStatus
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}
