// Logcheck verifies a published issuance log with the tree and the notes of golang.org/x/mod: an implementation of
// the same formats that shares nothing with Cortex's.
//
//	logcheck PATH_OR_URL VKEY
//
// It checks each shard's checkpoint, the inclusion of every leaf and, between powers of two, that the tree only grew.
// It says how much it checked as JSON, and fails at the first thing that is wrong.
package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
	maxFile    = tileWidth * (2 + 65535)
)

var client = http.Client{Timeout: 30 * time.Second}

func main() {
	if len(os.Args) != 3 {
		fail(errors.New("usage: logcheck PATH_OR_URL VKEY"))
	}
	checked, err := checkLog(os.Args[1], os.Args[2])
	if err != nil {
		fail(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(checked); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "logcheck:", err)
	os.Exit(1)
}

// counts is how much was checked.
type counts struct {
	Shards      int   `json:"shards"`
	Leaves      int64 `json:"leaves"`
	Consistency int   `json:"consistency_proofs"`
}

func checkLog(root, vkey string) (counts, error) {
	var all counts
	names, err := read(root, "shards")
	if err != nil {
		return all, err
	}
	for _, name := range strings.Fields(string(names)) {
		verifier, err := shardVerifier(vkey, name)
		if err != nil {
			return all, err
		}
		shard := shard{root: strings.TrimSuffix(root, "/") + "/" + name, tiles: map[string][]byte{}}
		if err := shard.open(verifier); err != nil {
			return all, fmt.Errorf("%s: %w", name, err)
		}
		proofs, err := shard.check()
		if err != nil {
			return all, fmt.Errorf("%s: %w", name, err)
		}
		all.Shards++
		all.Leaves += shard.tree.N
		all.Consistency += proofs
	}
	return all, nil
}

// shardVerifier is the log's key under the shard's name.
func shardVerifier(vkey, shard string) (note.Verifier, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("not a verifier key")
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize {
		return nil, errors.New("not an Ed25519 verifier key")
	}
	if _, err := note.NewVerifier(vkey); err != nil {
		return nil, err
	}
	named, err := note.NewEd25519VerifierKey(parts[0]+"/"+shard, ed25519.PublicKey(key[1:]))
	if err != nil {
		return nil, err
	}
	return note.NewVerifier(named)
}

// shard is one tree; it reads its own tiles.
type shard struct {
	root  string
	tree  tlog.Tree
	tiles map[string][]byte
}

// open reads the checkpoint: origin, size, root, time.
func (s *shard) open(verifier note.Verifier) error {
	signed, err := read(s.root, "checkpoint")
	if err != nil {
		return err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 5 || lines[0] != verifier.Name() || !strings.HasPrefix(lines[3], "time ") {
		return fmt.Errorf("not a checkpoint of %s: %q", verifier.Name(), opened.Text)
	}
	if s.tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return err
	}
	s.tree.Hash, err = tlog.ParseHash(lines[2])
	return err
}

func (s *shard) check() (int, error) {
	reader := tlog.TileHashReader(s.tree, s)
	for index := int64(0); index < s.tree.N; index += tileWidth {
		leaves, err := s.bundle(index / tileWidth)
		if err != nil {
			return 0, err
		}
		for offset, leaf := range leaves {
			if err := s.included(reader, index+int64(offset), leaf); err != nil {
				return 0, fmt.Errorf("leaf %d: %w", index+int64(offset), err)
			}
		}
	}
	proofs := 0
	for old := int64(1); old < s.tree.N; old *= 2 {
		if err := s.grewFrom(reader, old); err != nil {
			return 0, fmt.Errorf("from size %d: %w", old, err)
		}
		proofs++
	}
	return proofs, nil
}

func (s *shard) included(reader tlog.HashReader, index int64, leaf []byte) error {
	proof, err := tlog.ProveRecord(s.tree.N, index, reader)
	if err != nil {
		return err
	}
	return tlog.CheckRecord(proof, s.tree.N, s.tree.Hash, index, tlog.RecordHash(leaf))
}

func (s *shard) grewFrom(reader tlog.HashReader, old int64) error {
	before, err := tlog.TreeHash(old, reader)
	if err != nil {
		return err
	}
	proof, err := tlog.ProveTree(s.tree.N, old, reader)
	if err != nil {
		return err
	}
	return tlog.CheckTree(proof, s.tree.N, s.tree.Hash, old, before)
}

// bundle is the leaves of one bundle, each after its length in two bytes.
func (s *shard) bundle(index int64) ([][]byte, error) {
	width := min(tileWidth, s.tree.N-index*tileWidth)
	tile := tlog.Tile{H: tileHeight, L: -1, N: index, W: int(width)}
	bytes, err := read(s.root, strings.Replace(tile.Path(), "tile/8/data/", "tile/entries/", 1))
	if err != nil {
		return nil, err
	}
	var leaves [][]byte
	for len(bytes) >= 2 {
		length := int(binary.BigEndian.Uint16(bytes))
		if len(bytes) < 2+length {
			break
		}
		leaves, bytes = append(leaves, bytes[2:2+length]), bytes[2+length:]
	}
	if len(bytes) != 0 || int64(len(leaves)) != width {
		return nil, fmt.Errorf("bundle %d is not %d leaves", index, width)
	}
	return leaves, nil
}

// Height is part of tlog.TileReader.
func (s *shard) Height() int { return tileHeight }

// SaveTiles is part of tlog.TileReader: what it is given is verified, and is not asked for again.
func (s *shard) SaveTiles(tiles []tlog.Tile, data [][]byte) {
	for i, tile := range tiles {
		s.tiles[tile.Path()] = data[i]
	}
}

// ReadTiles is part of tlog.TileReader.
func (s *shard) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		data, known := s.tiles[tile.Path()]
		if !known {
			var err error
			if data, err = read(s.root, strings.Replace(tile.Path(), "tile/8/", "tile/", 1)); err != nil {
				return nil, err
			}
		}
		all = append(all, data)
	}
	return all, nil
}

// read reads one file of a published log.
func read(root, path string) ([]byte, error) {
	if !strings.HasPrefix(root, "http://") && !strings.HasPrefix(root, "https://") {
		return os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
	}
	response, err := client.Get(strings.TrimSuffix(root, "/") + "/" + path)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, maxFile))
}
