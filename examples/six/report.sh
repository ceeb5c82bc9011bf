#!/bin/sh
# The nightly job.
date '+report of %F %T'
