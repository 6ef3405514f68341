"""What can keep latents informative without decoding frames: modules from (latent [R D], embed [R E]) to a scalar."""
