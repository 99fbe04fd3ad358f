// Checks Compose files as Docker Compose itself reads them: by the JSON Schema of the specification, then whether
// what they name is there.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: go run . FILE…")
		os.Exit(2)
	}
	for _, file := range os.Args[1:] {
		if err := check(file); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", file, err)
			os.Exit(1)
		}
		fmt.Printf("%s: good\n", file)
	}
}

func check(file string) error {
	options, err := cli.NewProjectOptions([]string{file}, cli.WithOsEnv)
	if err != nil {
		return err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return err
	}
	for _, service := range project.Services {
		for _, config := range service.Configs {
			declared := project.Configs[config.Source]
			if declared.File == "" {
				continue
			}
			if _, err := os.Stat(declared.File); err != nil {
				return fmt.Errorf("service %s: config %s: %w", service.Name, config.Source, err)
			}
		}
		if service.Build != nil {
			if _, err := os.Stat(service.Build.Context + "/Dockerfile"); err != nil {
				return fmt.Errorf("service %s: build: %w", service.Name, err)
			}
		}
	}
	return nil
}
