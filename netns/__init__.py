"""The pod network: a pure plan, its nftables text, and the few modules that apply it to the kernel."""
