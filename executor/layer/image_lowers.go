package layer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Lowers returns the lower directories that a layer's image, mounted at dir,
// stands for, the lowest first; below are those of the layers below it. What the
// image could not have as it is is unpacked into directories that mkdir makes.
func Lowers(ctx context.Context, dir string, below []string, mkdir func() (string, error), nodes Nodes) ([]string, error) {
	l := lowers{ctx, dir, below, below[:len(below):len(below)], mkdir, nodes}
	implied, err := readImplied(dir)
	if err == nil {
		err = l.all(implied)
	}
	if errors.Is(err, errStray) {
		l.list = below[:len(below):len(below)]
		err = l.make(func(made string) error {
			return unpackImage(ctx, dir, made, implied, UnpackOptions{Lowers: below, Nodes: nodes})
		})
	}
	if err != nil {
		return nil, fmt.Errorf("layer image: %w", err)
	}
	return l.list[len(below):], nil
}

// lowers makes the list of lower directories.
type lowers struct {
	ctx   context.Context
	dir   string   // the image
	below []string // the layers below
	list  []string // and on top of them what there is so far
	mkdir func() (string, error)
	nodes Nodes
}

func (l *lowers) all(implied []string) error {
	if err := l.part(imageUnder); err != nil {
		return err
	}
	l.list = append(l.list, filepath.Join(l.dir, imageFiles))
	if len(implied) > 0 && len(l.below) > 0 {
		err := l.make(func(made string) error { return likeBelow(l.dir, made, l.below, implied) })
		if err != nil {
			return err
		}
	}
	return l.part(imageOver)
}

// part unpacks a layer tar that is in the image, if it is there.
func (l *lowers) part(name string) error {
	f, err := os.Open(filepath.Join(l.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return l.make(func(made string) error {
		if _, err := Unpack(l.ctx, f, made, UnpackOptions{Lowers: l.list, Nodes: l.nodes}); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
}

// make adds a directory that fill fills.
func (l *lowers) make(fill func(made string) error) error {
	made, err := l.mkdir()
	if err != nil {
		return err
	}
	if err := fill(made); err != nil {
		return err
	}
	l.list = append(l.list, made)
	return nil
}
