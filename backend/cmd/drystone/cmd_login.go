package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/model"
)

func newLogin(a *app) *cobra.Command {
	var user string
	c := &cobra.Command{
		Use:   "login --server ADDR --ca FILE --token-file FILE",
		Short: "Log in to a cluster from afar",
		Long: "Asks for a password and writes the token of a new session to --token-file, which only its owner can read.\n" +
			"The password is read from the terminal, or from standard input if that is not one.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.target.server == "" {
				return usagef("login needs --server; on a node, root needs no log-in")
			}
			c, err := a.target.remote(model.Secret{})
			if err != nil {
				return err
			}
			defer c.Close()
			password, err := a.readPassword(fmt.Sprintf("Password of %s at %s: ", user, a.target.server))
			if err != nil {
				return err
			}
			result, err := c.Login(cmd.Context(), user, model.NewSecret(password))
			if err != nil {
				return err
			}
			if err := writeToken(a.target.tokenFile, result.Token); err != nil {
				return err
			}
			a.said("logged in as %s (%s) until %s", result.User.Name, result.User.Role,
				result.Expires.Local().Format("2006-01-02 15:04"))
			return nil
		},
	}
	c.Flags().StringVar(&user, "user", "admin", "who logs in")
	return c
}

// writeToken replaces the file in one step; nobody else may read it.
func writeToken(path, token string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".token-*") // with mode 0600
	if err != nil {
		return fmt.Errorf("keep the token: %w", err)
	}
	_, err = f.WriteString(token + "\n")
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keep the token: %w", err), os.Remove(f.Name()))
	}
	return nil
}
