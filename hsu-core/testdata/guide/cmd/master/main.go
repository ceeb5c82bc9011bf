package main

import (
	"fmt"
	"os"

	coreLogging "github.com/core-tools/hsu-core/go/logging"
	"github.com/yourorg/my-hsu-master/internal/logging"

	flags "github.com/jessevdk/go-flags"
)

type flagOptions struct {
	Port        int    `long:"port" description:"port to listen on" default:"50051"`
	WorkerPath  string `long:"worker-path" description:"path to worker executable"`
	WorkerCount int    `long:"worker-count" description:"number of workers to manage" default:"2"`
}

func main() {
	var opts flagOptions
	var parser = flags.NewParser(&opts, flags.HelpFlag)

	_, err := parser.ParseArgs(os.Args[1:])
	if err != nil {
		fmt.Printf("Command line flags parsing failed: %v\n", err)
		os.Exit(1)
	}

	logger := logging.NewSprintfLogger()
	logger.Infof("Starting Master with options: %+v", opts)

	// Create core logger
	coreLogger := coreLogging.NewLogger(
		"hsu-master.core", coreLogging.LogFuncs{
			Debugf: logger.Debugf,
			Infof:  logger.Infof,
			Warnf:  logger.Warnf,
			Errorf: logger.Errorf,
		})

	// Create and start the master server
	master, err := NewHSUMaster(opts, coreLogger)
	if err != nil {
		logger.Errorf("Failed to create Master: %v", err)
		os.Exit(1)
	}

	master.Run()
}
