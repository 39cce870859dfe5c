package layer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Lowers returns the lower directories that a layer's image, mounted at dir,
// stands for, the lowest first; below are those of the layers below it. What the
// image could not have as it is is unpacked into directories that mkdir makes.
func Lowers(ctx context.Context, dir string, below []string, mkdir func() (string, error), nodes Nodes) ([]string, error) {
	list := below[:len(below):len(below)]
	part := func(name string) error {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		made, err := mkdir()
		if err != nil {
			return err
		}
		if _, err := Unpack(ctx, f, made, UnpackOptions{Lowers: list, Nodes: nodes}); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, made)
		return nil
	}
	if err := part(imageUnder); err != nil {
		return nil, fmt.Errorf("layer image: %w", err)
	}
	list = append(list, filepath.Join(dir, imageFiles))
	if err := implicitRoot(dir, below, mkdir, &list); err != nil {
		return nil, fmt.Errorf("layer image: %w", err)
	}
	if err := part(imageOver); err != nil {
		return nil, fmt.Errorf("layer image: %w", err)
	}
	return list[len(below):], nil
}

// implicitRoot adds a directory that is like the root below, for a layer that
// does not say what its own is like.
func implicitRoot(dir string, below []string, mkdir func() (string, error), list *[]string) error {
	_, err := os.Lstat(filepath.Join(dir, imageNoRoot))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(below) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	made, err := mkdir()
	if err != nil {
		return err
	}
	fd, err := unix.Open(made, openDir, 0)
	if err != nil {
		return err
	}
	a, err := newApplier(fd, &meter{lim: Limits{}.withDefaults()}, nil)
	if err != nil {
		return err
	}
	err = a.start(below)
	if cerr := a.close(); err == nil {
		err = cerr
	}
	*list = append(*list, made)
	return err
}
