"""What is to be done: workflows, their tools and the chains that run them."""
