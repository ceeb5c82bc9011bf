//go:build linux && amd64 && race

package store

const underRace = true
