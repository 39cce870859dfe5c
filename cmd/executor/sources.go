package main

import (
	"context"
	"slices"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/buildcontext/git"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// gitAgent is the id of the SSH agent that repositories are fetched with, as
// with BuildKit.
const gitAgent = "default"

// addSources gives the tools what fetches URLs and repositories. The secrets that
// authenticate it and the agent are those that the user offered.
func addSources(req *request.Build, cfg buildcontext.HTTPConfig, tools *executor.Tools) error {
	cfg.Secret = func(ctx context.Context, id string) ([]byte, bool, error) {
		if tools.Secret == nil || !slices.Contains(req.Secrets, id) {
			return nil, false, nil
		}
		data, err := tools.Secret(ctx, id)
		return data, err == nil, err
	}
	download, err := buildcontext.NewHTTP(cfg)
	if err != nil {
		return err
	}
	repos := git.Config{HTTP: cfg, Dir: string(req.Workspace)}
	if tools.Agent != nil && slices.Contains(req.Agents, gitAgent) {
		repos.Agent = func(ctx context.Context, message []byte) ([]byte, error) {
			return tools.Agent(ctx, gitAgent, message)
		}
	}
	client, err := git.New(repos)
	if err != nil {
		return err
	}
	tools.Download, tools.Git = download, client
	return nil
}
