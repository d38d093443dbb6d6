chmod 4755 tool; chmod 0600 plain; chmod 0700 dir; chmod 0444 dir/secret
