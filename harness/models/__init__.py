"""Who answers at the gateway: the scripted model, a real one through a provider, or a cassette of one."""
