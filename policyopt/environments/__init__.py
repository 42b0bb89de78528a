"""What a policy acts in: worlds that are told in text, tools that it calls, and other people's environments behind one interface."""
