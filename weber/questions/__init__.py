"""What somebody is asked who begins: few questions, of which "I do not know" is an answer, become a file of settings with remarks."""
