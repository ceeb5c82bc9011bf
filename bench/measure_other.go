//go:build !linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
)

func measure(context.Context, options, io.Writer) (report, error) {
	return report{}, fmt.Errorf("what processes use is read from Linux's /proc: %w", errors.ErrUnsupported)
}

func runChild([]string, io.Reader, io.Writer, io.Writer) int { return exitUsage }
