#!/bin/sh
# Writes numbered lines, each with one write().
n=0
while :; do
	n=$((n + 1))
	printf '%s %08d What is written here is kept while no master runs.\n' $$ "$n"
	[ $((n % 20)) -ne 0 ] || sleep "$PAUSE"
done
