package rotate

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/supervisor/logs/layout"
)

// space frees bytes of a file in place. Tests replace the operations that a file system may lack.
type space struct {
	collapse func(f *os.File, at, n int64) error
	punch    func(f *os.File, at, n int64) error
}

// system is the space of the operating system.
var system = space{collapse: collapseRange, punch: punchHole}

// free frees the lines of a rotation, and with them its marker. It may be repeated after a crash at any step.
func (l *log) free(ctx context.Context, m layout.Marker, p layout.Parts) error {
	if l.collapses() && l.appendsOnly(ctx) {
		if err := l.collapse(m); !lacking(err) {
			return err
		}
	}
	if err := l.punch(m, p); !lacking(err) {
		return err
	}
	return l.truncate(m)
}

// collapse removes the blocks before the cut. The rest of the line that the cut divides is blanked first.
func (l *log) collapse(m layout.Marker) error {
	err := l.whileMarked(crashpoint.LogBlank, m, func() error {
		_, err := l.file.WriteAt(layout.Filler(m.End-m.Cut), m.Cut)
		return err
	})
	if err != nil {
		return err
	}
	// The file system writes the blocks behind the cut while it locks writers out: write them now.
	if err := l.steps.Perform(crashpoint.LogBlankSync, l.sync); err != nil {
		return err
	}
	return l.whileMarked(crashpoint.LogCollapse, m, func() error { return l.space.collapse(l.file, 0, m.Cut) })
}

// collapses reports whether the file system supports collapse. It asks for a range behind the end of the log: that is
// refused in any case, with another error if collapse is supported.
func (l *log) collapses() bool {
	info, err := l.file.Stat()
	if err != nil {
		return false
	}
	const far = 1 << 40 // the log grows meanwhile
	err = l.space.collapse(l.file, (info.Size()+far)/l.block*l.block, l.block)
	return !errors.Is(err, errors.ErrUnsupported)
}

// punch makes a hole of the lines. The marker goes last: until then, every step can be repeated.
func (l *log) punch(m layout.Marker, p layout.Parts) error {
	behind := p.At + layout.MarkerSize
	err := l.whileMarked(crashpoint.LogPunch, m, func() error {
		if p.At > p.First {
			if err := l.space.punch(l.file, p.First, p.At-p.First); err != nil {
				return err
			}
		}
		return l.space.punch(l.file, behind, m.End-behind)
	})
	if err != nil {
		return err
	}
	if err := l.steps.Perform(crashpoint.LogPunchSync, l.sync); err != nil {
		return err
	}
	return l.whileMarked(crashpoint.LogUnmark, m, func() error {
		return l.space.punch(l.file, p.At, layout.MarkerSize)
	})
}

// truncate empties the log and writes the lines behind the rotated ones anew. Lines that are written between the read
// and the truncation are lost, and all of these lines if the master is killed before they are written.
func (l *log) truncate(m layout.Marker) (err error) {
	out, err := safefile.OpenFile(l.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	rest, err := io.ReadAll(io.NewSectionReader(l.file, m.End, 1<<62))
	if err != nil {
		return err
	}
	if err := l.whileMarked(crashpoint.LogTruncate, m, func() error { return l.file.Truncate(0) }); err != nil {
		return err
	}
	return l.steps.Perform(crashpoint.LogRest, func() error {
		_, err := out.Write(rest)
		return err
	})
}

// freeZeros makes a hole of the NULs before the first line, which count as freed bytes. Otherwise a worker that writes
// nothing else would fill the disk.
func (l *log) freeZeros() error {
	err := l.steps.Perform(crashpoint.LogPunch, func() error {
		p, err := layout.Find(l.file)
		if n := p.First / l.block * l.block; err == nil && n > 0 {
			err = l.space.punch(l.file, 0, n)
		}
		return err
	})
	if lacking(err) {
		return nil
	}
	return err
}

// closeHoles collapses the holes of a log that has data behind them: a collapse that a crash interrupted leaves one,
// and so does punching while a writer lacked O_APPEND.
func (l *log) closeHoles(ctx context.Context) error {
	asked := false // whether collapse can be used
	for from := int64(0); ; {
		info, err := l.file.Stat()
		if err != nil {
			return err
		}
		begin, end, err := layout.NextHole(l.file, from, info.Size())
		if err != nil || begin == end {
			return err
		}
		first, behind := (begin+l.block-1)/l.block*l.block, end/l.block*l.block
		if first >= behind {
			from = end
			continue
		}
		if !asked && !(l.collapses() && l.appendsOnly(ctx)) {
			return nil
		}
		asked = true
		parts, err := layout.Find(l.file)
		if err != nil {
			return err
		}
		err = l.steps.Perform(crashpoint.LogCollapse, func() error {
			return l.space.collapse(l.file, first, behind-first)
		})
		if lacking(err) {
			return nil
		}
		if err != nil {
			return err
		}
		l.offsets.Remove(first, parts.Lines, behind-first)
		from = first
	}
}
