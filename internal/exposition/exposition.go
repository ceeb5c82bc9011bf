// Package exposition writes metrics in the text format of Prometheus, version 0.0.4
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
//
// It writes samples as they are given to it, without collecting, sorting or converting them first. So the caller must
// give all samples of a family one after the other, and each set of label values once.
package exposition

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// ContentType is the media type of the format.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Family is the description of samples that differ only in their label values.
type Family struct {
	name   string
	head   string   // the lines HELP and TYPE
	labels []string // before each label value: the name of the label, and what separates it from the value before
	bounds []string // of the buckets of a histogram, as the values of the label "le"
}

// NewGauge returns the family of a value that can go up and down. Names of labels should be in alphabetical order.
func NewGauge(name, help string, labels ...string) *Family {
	return newFamily("gauge", name, help, labels)
}

// NewCounter returns the family of a value that only grows.
func NewCounter(name, help string, labels ...string) *Family {
	return newFamily("counter", name, help, labels)
}

// NewHistogram returns the family of a distribution. The bounds are the inclusive upper bounds of the buckets, in
// rising order, without that of the last bucket, which has none.
func NewHistogram(name, help string, bounds []float64, labels ...string) *Family {
	f := newFamily("histogram", name, help, labels)
	for _, bound := range append(slices.Clone(bounds), math.Inf(1)) {
		f.bounds = append(f.bounds, string(appendFloat(nil, bound)))
	}
	return f
}

func newFamily(kind, name, help string, labels []string) *Family {
	f := &Family{name: name}
	help = strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(help)
	f.head = "# HELP " + name + " " + help + "\n# TYPE " + name + " " + kind + "\n"
	for i, label := range labels {
		before := label + `="`
		if i > 0 {
			before = `",` + before
		}
		f.labels = append(f.labels, before)
	}
	return f
}

// appendLabels appends the labels of a sample, without braces.
func (f *Family) appendLabels(dst []byte, values []string) []byte {
	for i, value := range values {
		dst = append(dst, f.labels[i]...)
		dst = appendValue(dst, value)
	}
	if len(values) > 0 {
		dst = append(dst, '"')
	}
	return dst
}

// appendValue appends a label value. Bytes that are not UTF-8 would make the whole text invalid: they are replaced.
func appendValue(dst []byte, value string) []byte {
	value = strings.ToValidUTF8(value, "\uFFFD")
	plain := 0
	for i := range len(value) {
		escape := value[i]
		switch escape {
		case '\\', '"':
		case '\n':
			escape = 'n'
		default:
			continue
		}
		dst = append(append(dst, value[plain:i]...), '\\', escape)
		plain = i + 1
	}
	return append(dst, value[plain:]...)
}

// appendFloat appends the shortest text that has the same value.
func appendFloat(dst []byte, value float64) []byte {
	if value == math.Trunc(value) && math.Abs(value) < 1e6 { // most values, and the same text
		return strconv.AppendInt(dst, int64(value), 10)
	}
	return strconv.AppendFloat(dst, value, 'g', -1, 64) // also NaN, +Inf and -Inf
}
