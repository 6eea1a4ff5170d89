"""What MOTAB's monitor sees on a student's texts, without training."""
